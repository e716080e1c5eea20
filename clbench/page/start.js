// Everything begins here. A board's data are read, and its figures drawn, when it comes near the screen.

const boards = new Map();
const FIRST = 5;

function boardOf(section) {
  if (!boards.has(section)) {
    const data = JSON.parse($('script[type="application/json"]', section).textContent);
    const board = { section, data, chosen: new Map(), drawn: [], hiddenRows: new Set(), started: false, width: 0 };
    board.redraw = () => { if (board.started && !section.hidden) for (const render of board.drawn) render(); };
    boards.set(section, board);
  }
  return boards.get(section);
}

function start(section) {
  const board = boardOf(section);
  if (board.started || section.hidden) return;
  const holder = $('.figures', section);
  const able = board.data.rows.map((row, i) => ({ i, ...row })).filter((row) => row.curves);
  const first = [...able.filter((row) => !row.oracle), ...able.filter((row) => row.oracle)].slice(0, FIRST).map((row) => row.i);
  first.sort((a, b) => a - b).forEach((i, slot) => board.chosen.set(i, slot));
  hiddenRows(board);
  const curves = board.chosen.size > 0;
  const figures = [curves && scoresFigure(board), curves && gapFigure(board), matrixFigure(board), planeFigure(board), paretoFigure(board)].filter(Boolean);
  if (curves) holder.append(legend(board));
  const grid = make('div', { class: 'sheet' }, figures);
  if (!curves) holder.append(make('p', { class: 'nothing' }, 'No run here has its evaluation table beside it, so there are no curves.'));
  holder.append(grid);
  board.started = true;
  board.redraw();
  board.width = holder.clientWidth;
}

function hiddenRows(board) {
  board.hiddenRows = new Set($$('tr[data-row][hidden]', board.section).map((row) => Number(row.dataset.row)));
}

// Tables that go on beyond the right edge say so until they are scrolled to their end.
function markCut() {
  for (const box of $$('.board > .wide')) {
    const cut = box.scrollLeft + box.clientWidth < box.scrollWidth - 2;
    box.classList.toggle('cut', cut);
    $('.more', box).hidden = !cut;
  }
}

function watchBoards() {
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) start(entry.target.closest('section.board'));
  }, { rootMargin: '400px' });
  const sizes = new ResizeObserver((entries) => {
    fitDetails();
    markCut();
    for (const entry of entries) {
      const board = boards.get(entry.target.closest('section.board'));
      if (board && board.started && Math.abs(entry.contentRect.width - board.width) > 1) {
        board.width = entry.contentRect.width;
        if (board.width) board.redraw();
      }
    }
  });
  for (const section of $$('section.board')) {
    const holder = $('.figures', section);
    seen.observe(holder);
    sizes.observe(holder);
    $('.wide', section).addEventListener('scroll', markCut, { passive: true });
    section.addEventListener('filtered', () => {
      const board = boards.get(section);
      if (board && board.started) { hiddenRows(board); board.redraw(); }
    });
  }
  addEventListener('beforeprint', () => $$('section.board').forEach(start));
}

for (const element of $$('.script')) element.hidden = false;
watchTheme();
watchTips();
watchSorting();
watchFilters();
watchDetails();
watchBoards();
