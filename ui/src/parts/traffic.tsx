// How much there was of something lately, and how it went.

import { ms, rate } from '../format';
import { usePeriod, useSeries, type Selector } from '../series';
import { Card } from './basic';
import { Chart } from './chart';

/** Colours of percentiles, the slowest first. */
const COLORS = { p99: 'var(--chart-2)', p95: 'var(--chart-3)', p50: 'var(--chart-1)' };

/** Requests, errors and latency over time, of what `of` names; nothing where the process has no history of it. */
export function Traffic({ of, percentiles }: { of: Selector; percentiles: (keyof typeof COLORS)[] }) {
  const period = usePeriod();
  const series = useSeries(of, period.seconds);
  if (series === null) return null;
  return (
    <div class="cards">
      <Card title="Requests and errors" end={period.text}>
        <Chart
          label="Requests and errors per second"
          times={series.times}
          unit={rate}
          floor={1}
          lines={[
            { name: 'Requests', color: 'var(--chart-1)', values: series.requests, fill: true },
            { name: 'Errors', color: 'var(--bad-mark)', values: series.errors },
          ]}
        />
      </Card>
      <Card title="Latency" end={period.text}>
        <Chart
          label="Latency"
          times={series.times}
          unit={ms}
          floor={2}
          lines={percentiles.map((name) => ({ name, color: COLORS[name], values: series[name] }))}
        />
      </Card>
    </div>
  );
}
