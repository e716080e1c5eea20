// Accumulation against retention, where sets have roles: every row a point, joined to where the model began.

const PLANE = ['knowledge_accumulation', 'zero_shot_retention'];

function planeFigure(board) {
  const { data } = board;
  if (data.direction === 'lower' || !PLANE.every((key) => data.metrics.some((m) => m.key === key))) return null;
  const fig = figure(board, 'Accumulation against retention', 'Lines begin before training (star). Dotted: equal geometric mean. Bars: 95 % intervals.', '');
  function render() {
    const points = data.rows.map((row, i) => ({ i, row, ka: row.metrics[PLANE[0]], zs: row.metrics[PLANE[1]] }))
      .filter((p) => p.ka && p.zs && !board.hiddenRows.has(p.i))
      .map((p) => ({ ...p, x: p.ka[0], y: p.zs[0], low: p.zs[1], high: p.zs[2], from: beganAt(p.row) }));
    fig.readout.replaceChildren();
    if (!points.length) { fig.body.replaceChildren(make('p', { class: 'nothing' }, 'No row has both.')); return; }
    const width = fig.body.clientWidth;
    const height = Math.round(Math.min(380, Math.max(260, width * 0.55)));
    const starts = points.map((p) => p.from).filter(Boolean);
    const [xLow, xHigh] = padded(...endsOf([...points.map((p) => p.x), ...starts.map((s) => s[0])]), 0.12);
    const [yLow, yHigh] = padded(...endsOf([...points.flatMap((p) => spanOf([p])), ...starts.map((s) => s[1])]), 0.12);
    const xTicks = niceTicks(xLow, xHigh, width < 480 ? 3 : 6);
    const yTicks = niceTicks(yLow, yHigh, 5);
    const plot = frame(width, height, { scale: linear(xLow, xHigh), ticks: xTicks.ticks, text: (v) => fixed(v, xTicks.digits), label: 'knowledge accumulation' },
      { scale: linear(yLow, yHigh), ticks: yTicks.ticks, text: (v) => fixed(v, yTicks.digits) }, `zero-shot retention against knowledge accumulation, ${points.length} rows`,
      { top: 30, right: 34, bottom: 40, left: 54 });
    plot.grid.append(draw('text', { x: 4, y: 11, class: 'label' }, 'zero-shot retention (higher is better)'));
    levels(plot, [xLow, xHigh], [yLow, yHigh]);
    for (const p of points) if (p.from) plot.svg.append(draw('line', { x1: plot.X(p.from[0]), y1: plot.Y(p.from[1]), x2: plot.X(p.x), y2: plot.Y(p.y), class: 'way' }));
    plot.svg.append(...[...points].reverse().map((p) => mark(board, plot, p, true)));
    if (starts.length) plot.svg.append(draw('text', { x: plot.X(meanOf(starts.map((s) => s[0]))), y: plot.Y(meanOf(starts.map((s) => s[1]))) + 5, 'text-anchor': 'middle' }, '★'));
    label(board, plot, points, points);
    const ring = draw('circle', { r: 9, class: 'ring', visibility: 'hidden' });
    plot.svg.append(ring);
    walkPoints(plot, [...points].sort((a, b) => a.x - b.x), (p) => {
      ring.setAttribute('visibility', p ? 'visible' : 'hidden');
      if (!p) { fig.readout.replaceChildren(); return; }
      ring.setAttribute('cx', plot.X(p.x));
      ring.setAttribute('cy', plot.Y(p.y));
      fig.readout.replaceChildren(make('b', {}, name(p.row.label)), saidOf('accumulation', p.ka), saidOf('retention', p.zs));
    });
    fig.body.replaceChildren(plot.svg);
  }
  board.drawn.push(render);
  return fig.element;
}

const meanOf = (values) => values.reduce((a, b) => a + b, 0) / values.length;
const endsOf = (values) => [Math.min(...values), Math.max(...values)];
const saidOf = (what, [mean, low, high]) => make('span', {}, `${what} ${fixed(mean)}`, low == null ? '' : make('small', {}, ` ${fixed(low)} … ${fixed(high)}`));

// [accumulation, retention] before training; null where a row does not say.
function beganAt(row) {
  const changes = PLANE.map((key) => row.metrics[`${key}_change`]);
  return changes.every(Boolean) ? PLANE.map((key, i) => row.metrics[key][0] - changes[i][0]) : null;
}

// Curves of equal geometric mean, named where they leave the plot on the right.
function levels(plot, [left, right], [bottom, top]) {
  const [x0, y0] = [Math.max(left, 1e-6), Math.max(bottom, 1e-6)];
  for (const level of niceTicks(Math.sqrt(x0 * y0), Math.sqrt(Math.max(x0, right) * Math.max(y0, top)), 6).ticks) {
    const line = Array.from({ length: 81 }, (_, i) => x0 + (i / 80) * (right - x0)).map((x) => [x, level ** 2 / x]).filter(([, y]) => y >= bottom && y <= top);
    if (line.length < 2) continue;
    plot.grid.append(draw('path', { d: path(line.map(([x, y]) => [plot.X(x), plot.Y(y)])), class: 'level' }));
    const [x, y] = line[line.length - 1];
    if (x >= right - 1e-9) plot.grid.append(draw('text', { x: plot.X(right) + 4, y: plot.Y(y) + 3 }, fixed(level, 2)));
  }
}
