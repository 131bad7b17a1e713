// Places of nodes in layers from left to right: callers before those they call, and few crossings. An edge over several
// layers has a place in each of them, so that it does not run behind a node.

export const NODE = { width: 152, height: 50 };
const GAP = { least: 112, most: 260, y: 24 };

/** What an edge on its way through a layer takes. */
const LANE = 22;

const MARGIN = { x: 20, y: 30 };

/** Sweeps that put nodes near those they are connected with. */
const SWEEPS = 12;

export interface Placed {
  name: string;
  x: number;
  y: number;
}

export interface Layout {
  nodes: Map<string, Placed>;
  /** Points of an edge, by `source→target`: out of the one, through lanes, into the other. */
  ways: Map<string, [number, number][]>;
  width: number;
  height: number;
}

export const edgeKey = (from: string, to: string) => `${from}→${to}`;

interface Item {
  name: string;
  isLane: boolean;
}

/** `room` is the width that there is. */
export function layout(edges: [string, string][], room: number): Layout {
  const names = [...new Set(edges.flat())].sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
  const next = new Map<string, string[]>(names.map((name) => [name, []]));
  for (const [from, to] of edges) if (from !== to) next.get(from)?.push(to);
  const layer = layers(names, next);
  const count = Math.max(0, ...layer.values()) + 1;
  const rows: Item[][] = Array.from({ length: count }, () => []);
  const near = new Map<string, string[]>();
  const join = (a: string, b: string) => {
    near.set(a, [...(near.get(a) ?? []), b]);
    near.set(b, [...(near.get(b) ?? []), a]);
  };
  for (const name of names) rows[layer.get(name) ?? 0]?.push({ name, isLane: false });
  const lanes = new Map<string, string[]>();
  for (const [from, to] of edges) {
    const [a, b] = [layer.get(from) ?? 0, layer.get(to) ?? 0];
    const own: string[] = [];
    for (let at = a + 1; at < b; at += 1) {
      const name = `${edgeKey(from, to)}#${at}`;
      rows[at]?.push({ name, isLane: true });
      own.push(name);
    }
    lanes.set(edgeKey(from, to), own);
    [from, ...own, to].reduce((left, right) => {
      join(left, right);
      return right;
    });
  }

  const spot = new Map<string, number>();
  const note = (row: Item[]) => row.forEach((item, at) => spot.set(item.name, at - (row.length - 1) / 2));
  rows.forEach(note);
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    for (const row of sweep % 2 === 0 ? rows : [...rows].reverse()) {
      const mean = new Map(
        row.map(({ name }) => {
          const others = near.get(name) ?? [];
          const sum = others.reduce((total, other) => total + (spot.get(other) ?? 0), 0);
          return [name, others.length === 0 ? (spot.get(name) ?? 0) : sum / others.length];
        }),
      );
      row.sort((a, b) => (mean.get(a.name) ?? 0) - (mean.get(b.name) ?? 0));
      note(row);
    }
  }

  const tall = (row: Item[]) =>
    row.reduce((sum, item) => sum + (item.isLane ? LANE : NODE.height), 0) + Math.max(0, row.length - 1) * GAP.y;
  const height = Math.max(200, Math.max(...rows.map(tall)) + 2 * MARGIN.y);
  const free = (room - 2 * MARGIN.x - count * NODE.width) / Math.max(1, count - 1);
  const gap = Math.min(GAP.most, Math.max(GAP.least, free));
  const used = 2 * MARGIN.x + count * NODE.width + (count - 1) * gap;
  const indent = MARGIN.x + Math.max(0, room - used) / 2;
  const nodes = new Map<string, Placed>();
  const middle = new Map<string, [number, number]>();
  rows.forEach((row, column) => {
    const x = indent + column * (NODE.width + gap);
    let y = (height - tall(row)) / 2;
    for (const { name, isLane } of row) {
      if (isLane) middle.set(name, [x, y + LANE / 2]);
      else nodes.set(name, { name, x, y });
      y += (isLane ? LANE : NODE.height) + GAP.y;
    }
  });
  const ways = new Map<string, [number, number][]>();
  for (const [from, to] of edges) {
    const [a, b] = [nodes.get(from), nodes.get(to)];
    if (a === undefined || b === undefined) continue;
    const points: [number, number][] = [[a.x + NODE.width, a.y + NODE.height / 2]];
    for (const lane of lanes.get(edgeKey(from, to)) ?? []) {
      const [x, y] = middle.get(lane) ?? [0, 0];
      points.push([x, y], [x + NODE.width, y]);
    }
    points.push([b.x, b.y + NODE.height / 2]);
    ways.set(edgeKey(from, to), points);
  }
  return { nodes, ways, width: Math.max(room, used), height };
}

/** The longest way from a caller that nobody calls; edges that close a circle are left out of it. */
function layers(names: string[], next: Map<string, string[]>): Map<string, number> {
  const layer = new Map<string, number>();
  const called = new Set([...next.values()].flat());
  const roots = names.filter((name) => !called.has(name));
  const open = new Set<string>();
  const visit = (name: string, depth: number) => {
    if (open.has(name) || depth > names.length) return;
    if ((layer.get(name) ?? -1) >= depth) return;
    layer.set(name, depth);
    open.add(name);
    for (const other of next.get(name) ?? []) visit(other, depth + 1);
    open.delete(name);
  };
  for (const root of roots) visit(root, 0);
  for (const name of names) if (!layer.has(name)) visit(name, 0);
  return layer;
}
