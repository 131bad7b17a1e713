// uPlot, in a file of its own: fetched by pages that have charts.

import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';

export { uPlot };
