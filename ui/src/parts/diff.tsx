// What differs between two texts, line by line.

interface Step {
  kind: 'same' | 'plus' | 'minus';
  text: string;
  before: number | null;
  after: number | null;
}

/** Lines around a difference. */
const AROUND = 3;

/** Products of line counts above this are told as one removal and one addition. */
const WORK = 4_000_000;

export function compare(before: string, after: string): Step[] {
  const a = before === '' ? [] : before.replace(/\n$/, '').split('\n');
  const b = after === '' ? [] : after.replace(/\n$/, '').split('\n');
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head += 1;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail += 1;
  const [left, right] = [a.slice(head, a.length - tail), b.slice(head, b.length - tail)];
  const steps: Step[] = [];
  const same = (text: string, at: number, to: number) => steps.push({ kind: 'same', text, before: at + 1, after: to + 1 });
  for (let at = 0; at < head; at += 1) same(a[at] ?? '', at, at);
  let [x, y] = [0, 0];
  const minus = () => {
    steps.push({ kind: 'minus', text: left[x] ?? '', before: head + x + 1, after: null });
    x += 1;
  };
  const plus = () => {
    steps.push({ kind: 'plus', text: right[y] ?? '', before: null, after: head + y + 1 });
    y += 1;
  };
  if (left.length * right.length <= WORK) {
    // The longest common subsequence, from the end.
    const width = right.length + 1;
    const common = new Uint32Array((left.length + 1) * width);
    for (let i = left.length - 1; i >= 0; i -= 1) {
      for (let j = right.length - 1; j >= 0; j -= 1) {
        common[i * width + j] =
          left[i] === right[j]
            ? (common[(i + 1) * width + j + 1] ?? 0) + 1
            : Math.max(common[(i + 1) * width + j] ?? 0, common[i * width + j + 1] ?? 0);
      }
    }
    while (x < left.length && y < right.length) {
      if (left[x] === right[y]) {
        same(left[x] ?? '', head + x, head + y);
        x += 1;
        y += 1;
      } else if ((common[(x + 1) * width + y] ?? 0) >= (common[x * width + y + 1] ?? 0)) minus();
      else plus();
    }
  }
  while (x < left.length) minus();
  while (y < right.length) plus();
  for (let at = 0; at < tail; at += 1) {
    same(a[a.length - tail + at] ?? '', a.length - tail + at, b.length - tail + at);
  }
  return steps;
}

export function Diff({ before, after, label }: { before: string; after: string; label: string }) {
  const steps = compare(before, after);
  const near = new Set<number>();
  steps.forEach((step, at) => {
    if (step.kind !== 'same') for (let n = at - AROUND; n <= at + AROUND; n += 1) near.add(n);
  });
  if (near.size === 0) return <p class="muted">No difference.</p>;
  const lines = [];
  let isGap = false;
  for (const [at, step] of steps.entries()) {
    if (!near.has(at)) {
      if (!isGap) lines.push(<li class="gap" key={`gap${at}`}>⋯</li>);
      isGap = true;
      continue;
    }
    isGap = false;
    const [sign, word] = { same: [' ', ''], plus: ['+', 'added: '], minus: ['−', 'removed: '] }[step.kind] as [string, string];
    lines.push(
      <li class={step.kind} key={at}>
        <span aria-hidden="true">{step.before ?? ''}</span>
        <span aria-hidden="true">{step.after ?? ''}</span>
        <span aria-hidden="true">{sign}</span>
        <span>
          {word && <span class="hidden-text">{word}</span>}
          {step.text}
        </span>
      </li>,
    );
  }
  return (
    <div class="diff" tabIndex={0} role="region" aria-label={label}>
      <ol>{lines}</ol>
    </div>
  );
}
