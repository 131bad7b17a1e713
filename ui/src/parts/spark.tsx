// A line without axes, for the shape of the last minutes. The numbers beside it say what it says.

export interface Moment {
  at: number;
  /** `null`: nothing is known of it. */
  value: number | null | undefined;
}

export function Spark({
  moments,
  seconds,
  color = 'var(--chart-1)',
  floor = 0,
}: {
  moments: Moment[];
  /** What the width stands for; what is not known of it is left blank. */
  seconds: number;
  color?: string;
  /** The top of the scale is at least this, so that noise does not look like a storm. */
  floor?: number;
}) {
  const [width, height] = [100, 36];
  const most = Math.max(floor, ...moments.map((one) => one.value ?? 0)) || 1;
  const end = moments.at(-1)?.at ?? 0;
  const points: [number, number][] = [];
  for (const { at, value } of moments) {
    const x = width - ((end - at) / seconds) * width;
    if (value === null || value === undefined || x < 0) continue;
    points.push([x, height - 2 - (value / most) * (height - 6)]);
  }
  const line = points.map(([x, y], at) => `${at === 0 ? 'M' : 'L'}${x.toFixed(2)} ${y.toFixed(2)}`).join('');
  const [first, last] = [points[0], points.at(-1)];
  return (
    <svg class="spark" viewBox={`0 0 ${width} ${height}`} preserveAspectRatio="none" aria-hidden="true">
      {first && last && points.length > 1 && (
        <>
          <path class="area" d={`${line}L${last[0]} ${height}L${first[0]} ${height}Z`} fill={color} />
          <path class="stroke" d={line} stroke={color} />
        </>
      )}
    </svg>
  );
}
