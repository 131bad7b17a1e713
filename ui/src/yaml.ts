// Documents as people read them. In a file of its own: only the configuration needs it.

import { dump, load, YAMLException } from 'js-yaml';
import type { Doc } from './types';

/** Fields of a document that come first, in this order. */
const FIRST = ['apiVersion', 'kind', 'metadata', 'spec'];

/** A document as text. */
export function written(document: Doc | null): string {
  if (document === null) return '';
  const rank = (name: string) => (FIRST.indexOf(name) + FIRST.length + 1) % (FIRST.length + 1);
  const { status: _, ...rest } = document;
  return dump(rest, {
    lineWidth: 110,
    noRefs: true,
    sortKeys: (a: string, b: string) => rank(a) - rank(b),
  });
}

export interface Mistake {
  line: number | null;
  column: number | null;
  text: string;
}

/** The document in a text, or what is wrong with the text. */
export function parsed(text: string): { document: Doc } | { mistake: Mistake } {
  try {
    const value: unknown = load(text);
    if (value === null || typeof value !== 'object' || Array.isArray(value)) {
      return { mistake: { line: 1, column: 1, text: 'a document is a mapping with apiVersion, kind, metadata and spec' } };
    }
    return { document: value as Doc };
  } catch (error) {
    if (!(error instanceof YAMLException)) throw error;
    const mark = error.mark as { line: number; column: number } | undefined;
    return {
      mistake: {
        line: mark === undefined ? null : mark.line + 1,
        column: mark === undefined ? null : mark.column + 1,
        text: error.reason,
      },
    };
  }
}
