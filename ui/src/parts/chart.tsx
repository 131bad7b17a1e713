// Values over time, with axes; the same in words for those who do not see it.

import type uPlot from 'uplot';
import { useEffect, useRef, useState } from 'preact/hooks';
import { clock, hours } from '../format';
import { theme } from '../theme';

export interface Line {
  name: string;
  color: string;
  values: (number | null)[];
  fill?: boolean;
}

/** Charts that lie above each other show the same moment. */
const SYNC = 'rhumb';

export function Chart({
  times,
  lines,
  unit,
  label,
  height = 190,
  floor,
}: {
  times: number[];
  lines: Line[];
  unit: (value: number) => string;
  label: string;
  height?: number;
  /** The top of the scale is at least this. */
  floor?: number;
}) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const [at, setAt] = useState<number | null>(null);
  const look = theme.use();
  const shape = lines.map((line) => `${line.name}${line.color}`).join();
  const latest = useRef({ times, lines });
  latest.current = { times, lines };
  const data = (): uPlot.AlignedData => [latest.current.times, ...latest.current.lines.map((line) => line.values)];

  useEffect(() => {
    let isGone = false;
    let observer: ResizeObserver | undefined;
    const element = box.current;
    if (element === null) return;
    void import('./plot').then(({ uPlot: Plot }) => {
      if (isGone) return;
      const style = getComputedStyle(document.documentElement);
      const color = (name: string) => style.getPropertyValue(name.replace(/^var\((.*)\)$/, '$1')).trim() || '#888';
      const axis: uPlot.Axis = {
        stroke: color('--ink-3'),
        grid: { stroke: color('--line'), width: 1 },
        ticks: { show: false },
        font: '11px Inter, system-ui, sans-serif',
      };
      plot.current = new Plot(
        {
          width: Math.max(element.clientWidth, 100),
          height,
          padding: [8, 16, 0, 0],
          legend: { show: false },
          cursor: { sync: { key: SYNC }, points: { size: 6 }, drag: { x: false, y: false }, y: false },
          scales: {
            x: { time: true },
            y: { range: (_, __, max) => [0, Math.max((max ?? 0) * 1.12, floor ?? 0) || 1] },
          },
          axes: [
            { ...axis, grid: { show: false }, space: 70, size: 28, values: (_, ticks) => ticks.map(hours) },
            { ...axis, size: 62, space: 34, values: (_, ticks) => ticks.map((tick) => unit(tick)) },
          ],
          series: [
            {},
            ...lines.map((line) => ({
              label: line.name,
              stroke: color(line.color),
              width: 1.6,
              points: { show: false },
              spanGaps: false,
              ...(line.fill === true ? { fill: `${color(line.color)}22` } : {}),
            })),
          ],
          hooks: { setCursor: [(self) => setAt(self.cursor.idx ?? null)] },
        },
        data(),
        element,
      );
      observer = new ResizeObserver(() => {
        plot.current?.setSize({ width: Math.max(element.clientWidth, 100), height });
      });
      observer.observe(element);
    });
    return () => {
      isGone = true;
      observer?.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [shape, height, look, floor]);

  useEffect(() => {
    plot.current?.setData(data());
  }, [times, lines]);

  const shownAt = at ?? times.length - 1;
  const when = times[shownAt];
  return (
    <figure aria-label={`${label}. ${spoken(times, lines, unit)}`} role="img">
      <div class="legend" aria-hidden="true">
        {lines.map((line) => (
          <span key={line.name}>
            <i style={{ background: line.color }} />
            {line.name}
            <b>{show(line.values[shownAt], unit)}</b>
          </span>
        ))}
        <span class="muted">{at === null || when === undefined ? 'latest' : clock(when)}</span>
      </div>
      <div class="chart" style={{ minHeight: `${height}px` }} ref={box} />
    </figure>
  );
}

const show = (value: number | null | undefined, unit: (value: number) => string) =>
  value === null || value === undefined ? '–' : unit(value);

function spoken(times: number[], lines: Line[], unit: (value: number) => string): string {
  const [first, last] = [times[0], times.at(-1)];
  if (first === undefined || last === undefined) return 'No data.';
  const parts = lines.map((line) => {
    const known = line.values.filter((value): value is number => value !== null);
    if (known.length === 0) return `${line.name}: no data`;
    const latest = line.values.at(-1);
    return `${line.name}: latest ${show(latest, unit)}, lowest ${unit(Math.min(...known))}, highest ${unit(Math.max(...known))}`;
  });
  return `From ${clock(first)} to ${clock(last)}. ${parts.join('. ')}.`;
}
