// What `/api/v1` answers. Absent is null; times are seconds since 1970.

export type Level = 'ok' | 'warning' | 'critical';

export interface Finding {
  code: string;
  level: Level;
  title: string;
  about: { kind: string; name: string } | null;
  detail: string | null;
  fix: string | null;
  docs: string | null;
  /** Those who say so, at a control plane. */
  proxies?: string[];
}

export interface Listener {
  name: string;
  address: string;
  protocol: string;
  rules: number;
}

export interface Process {
  version: string;
  kind: 'gateway' | 'sidecar' | 'control';
  pid: number;
  state: 'starting' | 'ready' | 'draining';
  startedAt: number;
  uptimeSeconds: number;
  revision: number;
  liveSince: number | null;
  workers: number;
  connections: number;
  documents: { owner: 'files' | 'store'; writable: boolean; path: string | null };
  listeners: Listener[];
  overload: { state?: string } | null;
  mesh: { identity: string | null; trustDomain: string | null; permissive: boolean } | null;
  lastAttempt: { at: number; refused: string | null; diagnostics: string[] } | null;
}

export interface Signals {
  at?: number;
  windowSeconds?: number;
  requestsPerSecond: number | null;
  errorRatio: number | null;
  p50Ms: number | null;
  p95Ms: number | null;
  p99Ms: number | null;
}

export interface Event {
  at: number;
  kind: string;
  level: 'info' | 'warning' | 'error';
  about: string | null;
  text: string;
  /** Where it happened, at a control plane. */
  proxy?: string;
}

export interface Health {
  level: Level;
  checks: Finding[];
}

export interface Overview extends Health {
  process: Process;
  signals?: Signals | null;
  counts: {
    routes: number;
    backends: number;
    endpoints: { total: number; eligible: number };
    consumers: number;
    certificates: number;
    proxies: number | null;
  };
  changes?: Event[];
}

export interface Policy {
  kind: string;
  from: string | null;
  shadow?: boolean;
}

export interface Route {
  id: string;
  route: string;
  kind: string;
  rule: number;
  listener: string;
  address: string;
  template: string | null;
  hostnames: string[];
  matches: { path?: string | null; method?: string | null; headers?: string[]; query?: string[] }[];
  policies: Policy[];
  timeouts: Record<string, unknown> | null;
  backends: { backend: string; weight: number; policies?: Policy[]; retry?: unknown }[];
  mirrors: unknown[];
  refuses: string | null;
  origin: string | null;
}

export interface Endpoint {
  address: string;
  hostname: string | null;
  weight: number;
  priority: number;
  zone: string | null;
  state: string;
  share: number;
  sinceSeconds: number;
  why: string | null;
  next: string | null;
  lastEvidence: { why: string; secondsAgo: number } | null;
  ejections: number;
  relapses: number;
  check: { state: string; sinceSeconds: number; detail: string | null } | null;
  inFlight: number;
  latencyMs: number | null;
  started: number;
  succeeded: number;
  failed: number;
  throttled: number;
  window: { succeeded: number; failed: number };
}

export interface Backend {
  backend: string;
  protocol: string | null;
  tls: boolean;
  algorithm: string;
  panicking: boolean;
  requests: { inFlight: number; limit: number; refused: number } | null;
  ejections: Record<string, number>;
  mesh: { serverName: string | null; identities: string[] } | null;
  endpoints: Endpoint[];
  omitted?: number;
  names?: unknown;
}

export interface Certificate {
  use: string;
  name: string;
  names: string[];
  notBefore: number | null;
  notAfter: number;
  secondsLeft: number;
  level: Level;
  origin: string | null;
}

export interface Consumer {
  name: string;
  policies: Policy[];
  refuses: string | null;
}

export interface Proxy {
  proxy: string;
  connected: boolean;
  forSeconds: number;
  wants: number;
  current: number;
  refused: { resource: string; why: string }[];
  /** What it tells of itself; nothing where it is older. */
  kind?: 'gateway' | 'sidecar';
  version?: string;
  state?: string;
  level?: Level;
  checks?: Finding[];
  certificates?: { name: string; secondsLeft: number; level: Level }[];
}

export interface Top {
  name: string;
  requestsPerSecond: number;
  errorsPerSecond: number;
  errorRatio: number | null;
  p50Ms: number | null;
  p95Ms: number | null;
  p99Ms: number | null;
}

export interface Edge {
  source: string;
  target: string;
  mtls: boolean;
  requestsPerSecond: number;
  errorRatio: number | null;
  p50Ms: number | null;
  p95Ms: number | null;
  p99Ms: number | null;
}

export interface Page<T> {
  items: T[];
  next: string | null;
  total: number;
}

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

export interface Doc {
  kind?: string;
  metadata?: { name?: string; namespace?: string };
  [key: string]: Json | undefined;
}

export interface Documents {
  revision: number;
  owner: 'store' | 'files';
  documents: { revision: number | null; owner: 'store' | 'files'; origin: string | null; document: Doc }[];
}

export interface Change {
  document: string;
  action: 'added' | 'changed' | 'removed';
}

export interface Revision {
  revision: number;
  /** Milliseconds since 1970. */
  atMs: number;
  author: string;
  message: string;
  changes: Change[];
}

export interface Difference {
  document: string;
  before: Doc | null;
  after: Doc | null;
}

export interface Diagnostic {
  code: string;
  level: 'error' | 'warning';
  file: string | null;
  line: number | null;
  column: number | null;
  what: string;
  why: string | null;
  fix: string | null;
}

export interface Session {
  name: string;
  role: 'viewer' | 'editor' | 'admin';
  via: string;
  expiresAt: number | null;
}
