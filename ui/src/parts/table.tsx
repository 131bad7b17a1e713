// Tables as tables: sorted by any column, rows that lead somewhere.

import type { ComponentChildren } from 'preact';
import { useState } from 'preact/hooks';
import { go } from '../router';
import { Icon } from './icons';

export interface Column<T> {
  id: string;
  title: string;
  cell: (row: T) => ComponentChildren;
  /** What the column is sorted by; without it, it is not. */
  by?: (row: T) => number | string | null | undefined;
  isNumber?: boolean;
  width?: string;
}

/** Rows that are shown before somebody asks for more. */
const SHOWN = 200;

export function Table<T>({
  rows,
  columns,
  rowKey,
  goesTo,
  caption,
  sort,
  selected,
  empty,
}: {
  rows: readonly T[];
  columns: readonly Column<T>[];
  rowKey: (row: T) => string;
  goesTo?: (row: T) => string | null;
  caption: string;
  sort?: { id: string; down: boolean };
  selected?: string | null;
  empty?: ComponentChildren;
}) {
  const [order, setOrder] = useState(sort ?? null);
  const [shown, setShown] = useState(SHOWN);
  const by = columns.find((column) => column.id === order?.id)?.by;
  const sorted = by === undefined || order === null ? rows : [...rows].sort((a, b) => compare(by(a), by(b), order.down));
  if (rows.length === 0 && empty !== undefined) return <>{empty}</>;
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={caption}>
      <table>
        <caption class="hidden-text">{caption}</caption>
        <thead>
          <tr>
            {columns.map((column) => {
              const isOn = order?.id === column.id;
              return (
                <th
                  scope="col"
                  class={column.isNumber ? 'num' : ''}
                  style={column.width ? { width: column.width } : undefined}
                  aria-sort={isOn ? (order.down ? 'descending' : 'ascending') : undefined}
                  key={column.id}
                >
                  {column.by ? (
                    <button
                      type="button"
                      onClick={() => setOrder({ id: column.id, down: isOn ? !order.down : column.isNumber === true })}
                    >
                      {column.title}
                      {isOn && <Icon name={order.down ? 'down' : 'up'} />}
                    </button>
                  ) : (
                    column.title
                  )}
                </th>
              );
            })}
          </tr>
        </thead>
        <tbody>
          {sorted.slice(0, shown).map((row) => {
            const to = goesTo?.(row) ?? null;
            const key = rowKey(row);
            return (
              <tr
                class={to === null ? '' : 'goes'}
                onClick={(event) => {
                  if (to === null || (event.target as Element).closest('a, button, input')) return;
                  if (getSelection()?.toString()) return;
                  go(to);
                }}
                aria-current={selected === key ? 'true' : undefined}
                key={key}
              >
                {columns.map((column) => (
                  <td class={column.isNumber ? 'num' : ''} key={column.id}>
                    {column.cell(row)}
                  </td>
                ))}
              </tr>
            );
          })}
        </tbody>
      </table>
      {sorted.length > shown && (
        <p class="body row">
          <button type="button" class="button" onClick={() => setShown(shown + SHOWN)}>
            Show more
          </button>
          <span class="muted">
            {shown} of {sorted.length}
          </span>
        </p>
      )}
    </div>
  );
}

type Value = number | string | null | undefined;

function compare(a: Value, b: Value, down: boolean): number {
  const sign = down ? -1 : 1;
  // What is not known comes last either way.
  if (a === null || a === undefined) return b === null || b === undefined ? 0 : 1;
  if (b === null || b === undefined) return -1;
  if (typeof a === 'number' && typeof b === 'number') return sign * (a - b);
  return sign * String(a).localeCompare(String(b), 'en', { numeric: true });
}
