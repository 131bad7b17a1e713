// The pages, as the navigation and the palette list them.

import type { IconName } from './parts/icons';

export interface PageEntry {
  path: string[];
  title: string;
  icon: IconName;
  group: 'Now' | 'Traffic' | 'System';
}

export const PAGES: readonly PageEntry[] = [
  { path: [], title: 'Overview', icon: 'overview', group: 'Now' },
  { path: ['topology'], title: 'Topology', icon: 'topology', group: 'Now' },
  { path: ['tap'], title: 'Tap and trace', icon: 'tap', group: 'Now' },
  { path: ['routes'], title: 'Routes', icon: 'routes', group: 'Traffic' },
  { path: ['services'], title: 'Services', icon: 'services', group: 'Traffic' },
  { path: ['consumers'], title: 'Consumers', icon: 'consumers', group: 'Traffic' },
  { path: ['apis'], title: 'APIs', icon: 'apis', group: 'Traffic' },
  { path: ['certificates'], title: 'Certificates', icon: 'certificates', group: 'System' },
  { path: ['proxies'], title: 'Proxies', icon: 'proxies', group: 'System' },
  { path: ['configuration'], title: 'Configuration', icon: 'configuration', group: 'System' },
  { path: ['access'], title: 'Access', icon: 'access', group: 'System' },
];
