// Strokes on 16 × 16.

import type { ComponentProps } from 'preact';

const SHAPES = {
  overview: 'M2 8.5 8 3l6 5.5M4 7.5V13h8V7.5',
  topology: 'M3 3.5h3v3H3zM10 2h3v3h-3zM10 11h3v3h-3zM6 5h2.5V3.5H10M8.5 5v7.5H10',
  routes: 'M3 13V9a3 3 0 0 1 3-3h7M10 3l3 3-3 3',
  services: 'M2.5 3h11v4h-11zM2.5 9h11v4h-11zM5 5h.01M5 11h.01',
  tap: 'M2 8h3l2-5 3 10 2-5h2',
  consumers: 'M6 7.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5zM1.5 13.5c0-2.5 2-4 4.5-4s4.5 1.5 4.5 4M11 3a2.5 2.5 0 0 1 0 4.5M12 9.7c1.5.4 2.5 1.8 2.5 3.8',
  apis: 'M5 4 1.5 8 5 12M11 4l3.5 4-3.5 4M9 3 7 13',
  certificates: 'M8 1.5 13 3.5v4c0 3.5-2.5 5.7-5 7-2.5-1.3-5-3.5-5-7v-4zM6 8l1.5 1.5L10.5 6.5',
  proxies: 'M8 5.5a2 2 0 1 0 0-4 2 2 0 0 0 0 4zM3.5 14.5a2 2 0 1 0 0-4 2 2 0 0 0 0 4zM12.5 14.5a2 2 0 1 0 0-4 2 2 0 0 0 0 4zM8 5.5V8M8 8l-3.5 3M8 8l3.5 3',
  configuration: 'M4 1.5h5.5L13 5v9.5H4zM9.5 1.5V5H13M6.5 8h4M6.5 11h4',
  access: 'M6 10.5a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM9 7.5h5.5v2.5M12 7.5V10',
  search: 'M7 11.5a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9zM10.5 10.5 14 14',
  sun: 'M8 10.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5zM8 1.5v1.5M8 13v1.5M1.5 8H3M13 8h1.5M3.4 3.4l1.1 1.1M11.5 11.5l1.1 1.1M3.4 12.6l1.1-1.1M11.5 4.5l1.1-1.1',
  moon: 'M13.5 9.5A6 6 0 0 1 6.5 2.5a6 6 0 1 0 7 7z',
  screen: 'M2 3h12v8H2zM6 14h4M8 11v3',
  check: 'M3 8.5 6.5 12 13 4.5',
  alert: 'M8 2 14.5 13.5h-13zM8 6.5v3M8 11.5h.01',
  info: 'M8 14a6 6 0 1 0 0-12 6 6 0 0 0 0 12zM8 7.5V11M8 5h.01',
  lock: 'M4 7.5h8V14H4zM5.5 7.5V5a2.5 2.5 0 0 1 5 0v2.5',
  open: 'M4 7.5h8V14H4zM5.5 7.5V5a2.5 2.5 0 0 1 4.8-1',
  up: 'M4 10l4-4 4 4',
  down: 'M4 6l4 4 4-4',
  play: 'M5 3l8 5-8 5z',
  stop: 'M4 4h8v8H4z',
  out: 'M9 2.5H3.5v11H9M7 8h7M11.5 5.5 14 8l-2.5 2.5',
  menu: 'M2.5 4h11M2.5 8h11M2.5 12h11',
  back: 'M10 3 5 8l5 5',
  empty: 'M2 9.5 4 3.5h8l2 6V13H2zM2 9.5h3.5l1 1.5h3l1-1.5H14',
} as const;

export type IconName = keyof typeof SHAPES;

export function Icon({ name, ...rest }: { name: IconName } & Omit<ComponentProps<'svg'>, 'name'>) {
  return (
    <svg
      viewBox="0 0 16 16"
      fill="none"
      stroke="currentColor"
      stroke-width="1.4"
      stroke-linecap="round"
      stroke-linejoin="round"
      aria-hidden="true"
      {...rest}
    >
      <path d={SHAPES[name]} />
    </svg>
  );
}

export function Brand() {
  return (
    <svg viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="8" fill="#0e7c86" />
      <path d="M16 5.5 19 16l-3 10.5L13 16z" fill="#fff" />
      <path d="M5.5 16 16 13.6 26.5 16 16 18.4z" fill="#fff" fill-opacity=".55" />
    </svg>
  );
}
