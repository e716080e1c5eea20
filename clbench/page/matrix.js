// The matrix of scores after every task, as a table whose cells are coloured by a scale of even steps in lightness.

const VIRIDIS = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]];

function colourOf(share) {
  const place = Math.min(1, Math.max(0, share)) * (VIRIDIS.length - 1);
  const i = Math.min(VIRIDIS.length - 2, Math.floor(place));
  return VIRIDIS[i].map((c, k) => Math.round(c + (place - i) * (VIRIDIS[i + 1][k] - c)));
}

function luminance(rgb) {
  const [r, g, b] = rgb.map((c) => { const v = c / 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function matrixFigure(board) {
  const { data } = board;
  const rows = data.rows.map((row, i) => [i, row]).filter(([, row]) => row.matrix);
  if (!rows.length) return null;
  const lower = data.direction === 'lower';
  let current = rows[0][0];
  const holder = make('span');
  const fig = figure(board, 'Scores after every task',
    `A row of the figure: the model after a task. A column: the task whose set is scored${data.sets.some((s) => s.owner == null) ? '; held-out sets on the right' : ''}. – : the model could not score the set yet.`, '', holder);
  holder.append(choice('of', rows.map(([i, row]) => [i, row.label]), current, (value) => { current = Number(value); render(); }));
  const known = rows.flatMap(([, row]) => [...row.matrix.rows, row.matrix.initial || []].flat()).filter((v) => v != null);
  const accuracy = data.primary === 'accuracy';
  const low = accuracy ? 0 : Math.min(...known) / data.scale;
  const high = accuracy ? 1 : Math.max(...known) / data.scale;
  function render() {
    const { matrix, label } = data.rows[current];
    const columns = matrix.rows[0].length;
    const dense = columns > 14 || fig.body.clientWidth / (columns + 1) < 40;
    const digits = accuracy ? 2 : high >= 100 ? 0 : 2;
    const sets = columns === data.sets.length ? data.sets : matrix.rows[0].map((_, i) => ({ name: `set ${i}`, owner: i }));
    const several = matrix.orders > 1;
    const headOf = (set) => (set.owner == null ? (set.adapted ? 'all' : 'held') : `${set.owner}`);
    const cellOf = (value, row, set) => {
      if (value == null) return make('td', { class: 'no' }, make('span', {}, '–'));
      const score = value / data.scale;
      const share = high > low ? (score - low) / (high - low) : 1;
      const rgb = colourOf(lower ? 1 - share : share);
      const cell = make('td', { 'data-say': `${row}, ${several && set.owner != null ? `task ${set.owner}` : setName(set)}: ${fixed(score)}` },
        make('span', {}, fixed(score, digits).replace(/^0\./, '.')));
      cell.style.backgroundColor = `rgb(${rgb.join(' ')})`;
      cell.style.color = luminance(rgb) > 0.179 ? '#000' : '#fff';
      return cell;
    };
    const lines = [...(matrix.initial && matrix.initial.some((v) => v != null) ? [['before training', matrix.initial]] : []),
      ...matrix.rows.map((row, t) => [`after task ${t}`, row])];
    const table = make('table', { class: `matrix${dense ? ' dense' : ''}` },
      make('caption', {}, `${data.primary} of `, name(label), `, mean of ${matrix.runs} run${matrix.runs === 1 ? '' : 's'}`),
      make('thead', {}, make('tr', {}, make('td', {}), sets.map((set, i) => make('th', { scope: 'col', title: several ? null : set.name || null },
        dense && i % Math.ceil(columns / 12) ? '' : headOf(set))))),
      make('tbody', {}, lines.map(([head, values], t) => make('tr', {},
        make('th', { scope: 'row' }, dense && t % Math.ceil(lines.length / 12) ? make('span', { class: 'unseen' }, head) : head),
        values.map((value, i) => cellOf(value, head, sets[i]))))));
    const say = (event) => {
      const cell = event.target.closest('td[data-say]');
      fig.readout.textContent = cell ? cell.dataset.say : '';
    };
    table.addEventListener('pointerover', say);
    table.addEventListener('click', say);
    const scale = draw('svg', { class: 'scale', width: 120, height: 10, viewBox: '0 0 120 10', 'aria-hidden': 'true' },
      Array.from({ length: 60 }, (_, i) => draw('rect', { x: 2 * i, y: 0, width: 2.1, height: 10, fill: `rgb(${colourOf(i / 59).join(',')})` })));
    fig.readout.textContent = '';
    fig.body.replaceChildren(make('div', { class: 'wide', tabindex: 0, role: 'region', 'aria-label': 'Scores after every task' }, table),
      make('p', { class: 'hint' }, `${fixed(lower ? high : low, 2)} `, scale, ` ${fixed(lower ? low : high, 2)} ${data.primary}${several ? '; tasks counted as each run learned them' : ''}`));
  }
  board.drawn.push(render);
  board.showMatrix = (row) => { if (data.rows[row].matrix) { current = row; $('select', holder).value = row; render(); } };
  return fig.element;
}
