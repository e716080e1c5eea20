// Sorting, filtering, and the theme.

function sortBy(header, table) {
  const column = [...header.parentNode.children].indexOf(header);
  const state = header.getAttribute('aria-sort');
  const first = header.dataset.first || 'ascending';
  const other = first === 'ascending' ? 'descending' : 'ascending';
  const order = state === first ? other : first;
  for (const cell of header.parentNode.children) cell.removeAttribute('aria-sort');
  header.setAttribute('aria-sort', order);
  const sign = order === 'ascending' ? 1 : -1;
  const rows = $$('tr[data-row]', table).map((row) => {
    const text = row.children[column].dataset.sort;
    return { row, detail: row.nextElementSibling, text, number: text === '' ? NaN : Number(text) };
  });
  const numeric = rows.every((item) => item.text === '' || !Number.isNaN(item.number));
  rows.sort((a, b) => {
    if ((a.text === '') !== (b.text === '')) return a.text === '' ? 1 : -1; // without a value: last, either way
    const difference = numeric ? (a.number || 0) - (b.number || 0) : a.text.localeCompare(b.text);
    return sign * difference || a.row.dataset.row - b.row.dataset.row;
  });
  const body = $('tbody', table);
  for (const { row, detail } of rows) {
    body.append(row);
    if (detail && detail.classList.contains('detail')) body.append(detail);
  }
}

function watchSorting() {
  document.addEventListener('click', (event) => {
    const button = event.target.closest('button.sort');
    if (button) sortBy(button.closest('th'), button.closest('table'));
  });
}

// `10M`, `1e12`, `60`: a number; null where there is none, NaN where it is not one.
function amount(text) {
  if (!text.trim()) return null;
  const found = /^\s*(\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s*([kmgtp]?)b?s?\s*$/i.exec(text);
  return found ? Number(found[1]) * 1000 ** ' kmgtp'.indexOf(found[2].toLowerCase() || ' ') : NaN;
}

function filter(form) {
  const value = (field) => (form.elements[field] ? form.elements[field].value : '');
  const words = value('text').toLowerCase().split(/\s+/).filter(Boolean);
  const budget = form.elements.budget ? value('budget') : 'any';
  const only = $$('input[name="only"]:checked', form).map((box) => box.value);
  const limit = amount(value('limit'));
  form.elements.limit.setAttribute('aria-invalid', Number.isNaN(limit));
  let shown = 0;
  let all = 0;
  for (const board of $$('section.board')) {
    const fits = (!value('board') || board.id === value('board')) && (!value('model') || board.dataset.model === value('model'))
      && (budget === 'any' || board.dataset.budget === budget);
    let here = 0;
    for (const row of $$('tr[data-row]', board)) {
      const kept = fits && words.every((word) => row.dataset.search.includes(word))
        && only.every((need) => row.dataset.only.split(' ').includes(need))
        && (limit == null || Number.isNaN(limit) || (row.dataset[value('spent')] !== '' && Number(row.dataset[value('spent')]) <= limit))
        && (!value('chosen') || row.dataset.chosen === value('chosen'));
      row.hidden = !kept;
      const detail = row.nextElementSibling;
      if (detail && detail.classList.contains('detail')) detail.hidden = !kept || !row.classList.contains('opened');
      here += kept;
      all += 1;
    }
    board.hidden = here === 0;
    shown += here;
    board.dispatchEvent(new CustomEvent('filtered'));
  }
  $('#nothing').hidden = shown > 0;
  $('#count').textContent = shown === all ? `${all} rows` : `${shown} of ${all} rows`;
}

function watchFilters() {
  const form = $('#filters');
  form.addEventListener('input', () => filter(form));
  form.addEventListener('submit', (event) => event.preventDefault());
  form.addEventListener('reset', () => setTimeout(() => filter(form)));
  filter(form);
}

function watchTheme() {
  const button = $('#theme');
  const names = ['system', 'light', 'dark'];
  let theme = 'system';
  try { theme = localStorage.getItem('clbench-theme') || theme; } catch (error) { /* storage may be forbidden */ }
  const show = () => {
    if (theme === 'system') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    $('span', button).textContent = theme;
  };
  if (!names.includes(theme)) theme = 'system';
  button.addEventListener('click', () => {
    theme = names[(names.indexOf(theme) + 1) % names.length];
    try { localStorage.setItem('clbench-theme', theme); } catch (error) { /* the choice lasts until the page is closed */ }
    show();
  });
  show();
}
