// What stands behind a row, made when it is opened for the first time.

function facts(title, pairs, code) {
  if (!pairs.length) return null;
  return make('section', {}, make('h4', {}, title), make('dl', { class: 'facts-list' }, pairs.map(([key, value]) =>
    make('div', {}, make('dt', {}, name(key)), make('dd', {}, code && /^[0-9a-f]+$/.test(value) ? make('code', {}, value) : name(value))))));
}

function copyButton(text) {
  const button = make('button', { type: 'button', class: 'copy' }, 'Copy');
  const done = (word) => { button.textContent = word; setTimeout(() => { button.textContent = 'Copy'; }, 1600); };
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(text);
      done('Copied');
    } catch (error) { // no clipboard for pages from files in some browsers: select the text instead
      const range = document.createRange();
      range.selectNodeContents($('code', button.parentNode));
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      let copied = false;
      try { copied = document.execCommand('copy'); } catch (failure) { /* it stays selected */ }
      done(copied ? 'Copied' : 'Selected');
    }
  });
  return button;
}

function table(caption, heads, rows) {
  return make('section', {}, make('h4', {}, caption), make('div', { class: 'wide', tabindex: 0, role: 'region', 'aria-label': caption },
    make('table', { class: 'plain' }, make('thead', {}, make('tr', {}, heads.map((head) => make('th', { scope: 'col' }, head)))),
      make('tbody', {}, rows.map((row) => make('tr', {}, row.map((cell) => make('td', {}, typeof cell === 'string' ? name(cell) : cell ?? '')))))))) ;
}

function detailsOf(board, place) {
  const row = board.data.rows[place];
  const d = row.details;
  const several = (d.runs.length || d.failed.length) > 1;
  const metrics = board.data.metrics.filter((m) => row.metrics[m.key]).map((m) => {
    const [mean, low, high, n] = row.metrics[m.key];
    return [make('a', { class: 'term', href: `#def-${m.term}`, 'data-term': m.term }, m.name), fixed(mean, m.digits), low == null ? '–' : `${fixed(low, m.digits)} … ${fixed(high, m.digits)}`, String(n)];
  });
  return make('div', { class: 'details' },
    row.summary && make('p', { class: 'summary' }, name(row.summary)),
    make('section', { class: 'repeat' }, make('h4', {}, several ? 'Repeat these runs' : 'Repeat this run'),
      d.commands.map((command) => make('div', { class: 'command' }, make('pre', {}, make('code', {}, command)), copyButton(command))),
      d.commands.length ? null : make('p', {}, 'No run to repeat.')),
    d.warnings.length ? make('section', { class: 'warnings' }, make('h4', {}, 'Warnings'), make('ul', {}, d.warnings.map((text) => make('li', {}, name(text))))) : null,
    make('div', { class: 'columns' },
      facts('Fingerprints', d.prints, true),
      facts('Environment', d.environment),
      facts('Settings of the strategy', d.settings.strategy),
      facts('Settings of the stream', d.settings.stream),
      facts('Settings of the run', d.settings.run)),
    metrics.length ? table('All metrics', ['metric', 'mean', '95 % interval', 'runs'], metrics) : null,
    d.runs.length ? table('Runs', ['run', 'order seed', 'seed', 'average', 'finished (UTC)', 'standing', ...d.of_runs],
      d.runs.map((run) => [run.run, String(run.order_seed), String(run.seed), fixed(run.average, 4), run.finished.replace('T', ' ').replace('Z', ''), run.standing || '–', ...run.prints.map((print) => make('code', {}, print))])) : null,
    d.failed.length ? table('Diverged runs', ['run', 'order seed', 'seed', 'what happened'], d.failed.map((run) => [run.run, String(run.order_seed), String(run.seed), run.error])) : null);
}

function watchDetails() {
  for (const button of $$('button.open')) {
    button.addEventListener('click', () => {
      const row = button.closest('tr');
      const opened = row.classList.toggle('opened');
      button.setAttribute('aria-expanded', opened);
      let detail = row.nextElementSibling;
      if (!detail || !detail.classList.contains('detail')) {
        const board = boardOf(row.closest('section.board'));
        detail = make('tr', { class: 'detail' }, make('td', { colspan: row.children.length }, detailsOf(board, Number(row.dataset.row))));
        row.after(detail);
        fitDetails();
      }
      detail.hidden = !opened;
    });
  }
}

// Details are as wide as what is seen of their table, not as the table.
function fitDetails() {
  for (const box of $$('.details')) {
    const room = box.closest('.wide').clientWidth;
    if (room) box.style.width = `${room - 24}px`;
  }
}
