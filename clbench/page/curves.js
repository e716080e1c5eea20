// Scores over the steps, and the stability gap after every switch, for the rows chosen in the legend.

const MOST_CHOSEN = 8;

function chosenRows(board) {
  return [...board.chosen].map(([row, slot]) => ({ row, slot, ...board.data.rows[row] }))
    .filter((item) => item.curves && !board.hiddenRows.has(item.row)).sort((a, b) => a.slot - b.slot);
}

function unpack(board, packed) {
  return packed && packed.map((column, i) => (i ? column.map((v) => v / board.data.scale) : column));
}

function swatch(slot) {
  return draw('svg', { class: `swatch s${slot}`, viewBox: '0 0 26 10', width: 26, height: 10, 'aria-hidden': 'true' },
    draw('path', { d: 'M1 5H25', class: 'line' }));
}

function legend(board) {
  const holder = make('div', { class: 'legend', role: 'group', 'aria-label': 'Rows in the figures' });
  const toggle = (row) => {
    if (board.chosen.has(row)) board.chosen.delete(row);
    else {
      if (board.chosen.size >= MOST_CHOSEN) board.chosen.delete(board.chosen.keys().next().value);
      const used = new Set(board.chosen.values());
      board.chosen.set(row, [...LETTERS].findIndex((_, slot) => !used.has(slot)));
    }
    board.redraw();
  };
  const buttons = board.data.rows.map((row, i) => row.curves && make('button', {
    type: 'button', class: 'key', title: row.summary, onclick: () => toggle(i),
  }, make('span', { class: 'sample' }), name(row.label)));
  holder.append(...buttons.filter(Boolean));
  board.drawn.push(() => buttons.forEach((button, i) => {
    if (!button) return;
    const slot = board.chosen.get(i);
    button.setAttribute('aria-pressed', slot !== undefined);
    button.hidden = board.hiddenRows.has(i);
    button.firstChild.replaceChildren(...(slot === undefined ? [] : [swatch(slot), make('b', { class: `t${slot}` }, LETTERS[slot])]));
  }));
  return holder;
}

function figure(board, title, about, shape, ...controls) {
  const body = make('div', { class: 'canvas' });
  const note = make('span');
  const readout = make('p', { class: 'readout', 'aria-live': 'polite' });
  const element = make('figure', { class: shape }, make('div', { class: 'bar-top' }, make('h3', {}, title), make('div', { class: 'controls' }, controls)),
    body, readout, make('figcaption', {}, about, note));
  return { element, body, readout, note };
}

// `task 1: rotated-36`; without its name where that says no more, or runs learned several sets as that task.
const plainName = (set) => set.owner != null && ['', `task${set.owner}`, `task ${set.owner}`].includes(set.name);
const setName = (set) => `${set.owner == null ? (set.adapted ? 'all tasks' : 'held out') : `task ${set.owner}`}${plainName(set) ? '' : `: ${set.name}`}`;

const bandText = (runs) => (runs > 2 ? 'Bands: 95 % intervals of the mean.' : 'Bands: from one run to the other.');

function readoutOf(target, head, items, text = fixed) {
  if (!items) { target.replaceChildren(); return; }
  target.replaceChildren(make('b', {}, head), ...items.map((item) => make('span', {},
    make('b', { class: `t${item.slot}` }, LETTERS[item.slot]), ` ${text(item.value.mean)}`,
    item.value.low != null && item.value.low !== item.value.high ? make('small', {}, ` ${text(item.value.low)} … ${text(item.value.high)}`) : null)));
}

function bounds(curves) {
  let low = Infinity;
  let high = -Infinity;
  for (const curve of curves) for (const column of curve.slice(1)) for (const v of column) { low = Math.min(low, v); high = Math.max(high, v); }
  return [low, high];
}

function scoresFigure(board) {
  const { data } = board;
  const lower = data.direction === 'lower';
  let what = 'average';
  const options = [['average', 'average of the tasks seen so far'],
    ...data.sets.map((set, i) => [i, setName(set)])];
  const lengths = data.rows.filter((row) => row.curves && row.curves.ends.length).map((row) => row.curves.ends[row.curves.ends.length - 1]);
  let axis = Math.max(...lengths) > 1.5 * Math.min(...lengths) ? 'tasks' : 'steps';
  const fig = figure(board, 'Score over the steps',
    'Dotted lines: a task ends. The average jumps there, since one more task is counted from then on. Tasks are counted from 0.', 'broad',
    choice('along', [['steps', 'steps'], ['tasks', 'tasks']], axis, (value) => { axis = value; render(); }),
    choice('of', options, what, (value) => { what = value; render(); }));
  function render() {
    const rows = chosenRows(board);
    const items = rows.map((row) => ({ ...row, curve: unpack(board, what === 'average' ? row.curves.average : row.curves.sets[what]) }))
      .filter((row) => row.curve && row.curve[0].length);
    fig.readout.replaceChildren();
    if (!items.length) {
      fig.body.replaceChildren(make('p', { class: 'nothing' }, rows.length ? 'Not scored while it was learned.' : 'Choose rows in the legend.'));
      return;
    }
    for (const item of items) item.curve = [item.curve[0].map(axis === 'tasks' ? (step) => placeOf(item.curves, step) : (step) => step), ...item.curve.slice(1)];
    const edges = axis === 'tasks' ? [...Array(Math.max(...items.map((item) => item.curves.ends.length)) + 1).keys()] : [items[0].curves.start, ...items[0].curves.ends];
    const last = Math.max(edges[edges.length - 1], ...items.map((item) => item.curve[0][item.curve[0].length - 1]));
    let [low, high] = bounds(items.map((item) => item.curve));
    [low, high] = padded(low, high);
    if (data.primary === 'accuracy') { low = Math.max(0, low); high = Math.min(1, high); if (high - low < 0.02) low = Math.max(0, high - 0.02); }
    const width = fig.body.clientWidth;
    const height = Math.round(Math.min(360, Math.max(230, width * 0.5)));
    const ticks = niceTicks(low, high, 5);
    const steps = axis === 'tasks' ? [] : niceTicks(edges[0], last, width < 480 ? 4 : 8).ticks;
    const plot = frame(width, height, {
      scale: linear(edges[0], last || 1), ticks: steps, text: (v) => v.toLocaleString('en'), label: axis === 'tasks' ? 'tasks, each as wide as the others' : 'optimiser steps',
    }, { scale: linear(low, high), ticks: ticks.ticks, text: (v) => fixed(v, ticks.digits) },
    `${data.primary} over the steps, ${lower ? 'lower' : 'higher'} is better, of ${items.map((i) => i.label).join(', ')}`,
    { top: 34, right: 26, bottom: axis === 'tasks' ? 24 : 38, left: 52 });
    plot.grid.append(draw('text', { x: 4, y: 11, class: 'label' }, `${data.primary} (${lower ? 'lower' : 'higher'} is better)`));
    boundaries(plot, edges);
    for (const item of items) addCurve(plot, item.curve, item.slot, what !== 'average' ? [] : axis === 'tasks' ? edges.slice(1) : item.curves.ends);
    addLetters(plot, items.map((item) => ({ slot: item.slot, y: plot.Y(item.curve[1][item.curve[1].length - 1]) })));
    const stops = [...new Set(items.flatMap((item) => item.curve[0]))].sort((a, b) => a - b);
    const said = (x) => (axis === 'tasks' ? `task ${Math.max(0, Math.ceil(x) - 1)}, ${Math.round(100 * (x - Math.max(0, Math.ceil(x) - 1)))} %` : `step ${x.toLocaleString('en')}`);
    explore(plot, stops, plot.X, (x) => readoutOf(fig.readout, x == null ? '' : said(x),
      x == null ? null : items.map((item) => ({ ...item, value: valueAt(item.curve, x) })).filter((item) => item.value)));
    fig.body.replaceChildren(plot.svg);
    fig.note.textContent = items.some((item) => item.curve[2]) ? ` ${bandText(Math.max(...items.map((i) => i.curves.runs)))}` : '';
  }
  board.drawn.push(render);
  return fig.element;
}

// Where a step lies between the ends of tasks: 1.5 is the middle of the second task.
function placeOf({ start, ends }, step) {
  const task = ends.findIndex((end) => step <= end);
  if (task < 0) return ends.length;
  const begin = task ? ends[task - 1] : start;
  return task + (ends[task] > begin ? (step - begin) / (ends[task] - begin) : 1);
}

// Vertical lines where tasks end, and the numbers of the tasks between them as far as there is room.
function boundaries(plot, edges) {
  const every = Math.ceil(edges.length / Math.max(1, plot.w / 26));
  edges.slice(1).forEach((edge, task) => {
    const x = plot.X(edge);
    plot.grid.append(draw('line', { x1: x, x2: x, y1: plot.top, y2: plot.top + plot.h, class: 'switch' }));
    const middle = (plot.X(edges[task]) + x) / 2;
    if (task % every === 0 && x > plot.X(edges[task])) {
      const wide = x - plot.X(edges[task]) > 52;
      plot.grid.append(draw('text', { x: middle, y: plot.top - 5, 'text-anchor': 'middle' }, wide ? `task ${task}` : `${task}`));
    }
  });
}

function gapFigure(board) {
  const { data } = board;
  const hasHeld = data.rows.some((row) => row.curves && Object.keys(row.curves.held_out_changes).length);
  const hasOld = data.rows.some((row) => row.curves && Object.keys(row.curves.changes).length);
  if (!hasHeld && !hasOld) return null;
  let kind = hasOld ? 'changes' : 'held_out_changes';
  let all = false;
  const fig = figure(board, 'The gap after each switch',
    `Mean change of the earlier tasks’ scores (in ${data.direction === 'lower' ? `−${data.primary}` : data.primary}) since the switch; below 0 is worse. All panels have one scale; steps are logarithmic, since the fall comes in the first few.`, 'broad',
    hasHeld && hasOld ? choice('of', [['changes', 'earlier tasks'], ['held_out_changes', 'held-out sets']], kind, (v) => { kind = v; render(); }) : null);
  function render() {
    const items = chosenRows(board);
    const found = items.map((item) => Object.fromEntries(Object.entries(item.curves[kind]).map(([k, packed]) => [k, unpack(board, packed)])));
    const switches = [...new Set(found.flatMap((curves) => Object.keys(curves)))].map(Number).sort((a, b) => a - b);
    fig.readout.replaceChildren();
    if (!switches.length) {
      fig.body.replaceChildren(make('p', { class: 'nothing' }, items.length ? 'These rows were not scored inside tasks.' : 'Choose rows in the legend.'));
      return;
    }
    const curves = found.flatMap((found_) => Object.values(found_));
    let [low, high] = bounds(curves);
    [low, high] = padded(Math.min(0, low), Math.max(0, high));
    const most = Math.max(1, Math.floor(fig.body.clientWidth / 200));
    const few = switches.length < Math.max(3 * most, 6) ? switches.length : Math.max(2 * most - 1, 5);
    const shown = all ? switches : switches.slice(0, few);
    const panels = [...(switches.length > 1 ? ['mean'] : []), ...shown];
    const columns = Math.ceil(panels.length / Math.ceil(panels.length / most)); // rows of about equal length
    const width = Math.floor((fig.body.clientWidth - 1 - 6 * (columns - 1)) / columns);
    const ticks = niceTicks(low, high, 4);
    const holder = make('div', { class: 'panels' });
    for (const panel of panels) {
      const parts = items.map((item, i) => ({ ...item, curve: panel === 'mean' ? overSwitches(Object.values(found[i])) : found[i][panel] }))
        .filter((part) => part.curve && part.curve[0].length);
      if (!parts.length) continue;
      const longest = Math.max(...parts.map((part) => part.curve[0][part.curve[0].length - 1]), 1);
      const title = panel === 'mean' ? 'mean of all switches' : `into task ${panel}`;
      const plot = frame(width, 165, {
        scale: fromZero(longest), ticks: stepTicks(longest, width < 240 ? 4 : 6), text: (v) => v.toLocaleString('en', { notation: 'compact' }), label: 'steps since the switch',
      }, { scale: linear(low, high), ticks: ticks.ticks, text: (v) => fixed(v, ticks.digits) },
      `Change of earlier scores after the switch, ${title}`, { top: 20, right: 20, bottom: 36, left: 44 });
      plot.grid.append(draw('text', { x: 44, y: 12, class: 'label' }, title));
      for (const part of parts) addCurve(plot, part.curve, part.slot, [], longest <= 400 && panel !== 'mean');
      addLetters(plot, parts.map((part) => ({ slot: part.slot, y: plot.Y(part.curve[1][part.curve[1].length - 1]) })));
      const stops = [...new Set(parts.flatMap((part) => part.curve[0]))].sort((a, b) => a - b);
      explore(plot, stops, plot.X, (step) => readoutOf(fig.readout, step == null ? '' : `${title}, ${step} step${step === 1 ? '' : 's'} on`,
        step == null ? null : parts.map((part) => ({ ...part, value: valueAt(part.curve, step) })).filter((part) => part.value)));
      holder.append(plot.svg);
    }
    fig.body.replaceChildren(holder);
    if (shown.length < switches.length) {
      fig.body.append(make('button', { type: 'button', class: 'quiet', onclick: () => { all = true; render(); } }, `Show all ${switches.length} switches`));
    }
  }
  board.drawn.push(render);
  return fig.element;
}

// Mean of several curves over the steps that all of them reach, linear between their points.
function overSwitches(curves) {
  const reach = Math.min(...curves.map((curve) => curve[0][curve[0].length - 1]));
  const steps = [...new Set(curves.flatMap((curve) => curve[0]))].filter((s) => s <= reach).sort((a, b) => a - b);
  const mean = steps.map((step) => curves.reduce((sum, [xs, ys]) => {
    const right = xs.findIndex((x) => x >= step);
    const left = Math.max(0, right - 1);
    const share = xs[right] === xs[left] ? 0 : (step - xs[left]) / (xs[right] - xs[left]);
    return sum + ys[left] + share * (ys[right] - ys[left]);
  }, 0) / curves.length);
  return [steps, mean];
}
