// Definitions where they are needed: on hover, on keyboard focus, and on a tap or click, which pins them.

function watchTips() {
  const tip = $('#tip');
  let owner = null;
  let pinned = false;
  let timer = 0;

  function hide() {
    clearTimeout(timer);
    if (owner) owner.removeAttribute('aria-describedby');
    owner = null;
    pinned = false;
    tip.hidden = true;
  }

  function show(link, pin) {
    const entry = document.getElementById(`def-${link.dataset.term}`);
    if (!entry) return;
    hide();
    owner = link;
    pinned = pin;
    tip.replaceChildren(...[...entry.children].map((child) => {
      const part = make('div', { class: child.tagName === 'DT' ? 'tip-name' : 'tip-text' });
      part.append(...[...child.childNodes].map((node) => node.cloneNode(true)));
      return part;
    }));
    tip.hidden = false;
    link.setAttribute('aria-describedby', 'tip');
    place();
  }

  function place() {
    const at = owner.getBoundingClientRect();
    if (at.bottom < 0 || at.top > innerHeight) { hide(); return; }
    const size = tip.getBoundingClientRect();
    const left = Math.min(at.left + at.width / 2 - size.width / 2, document.documentElement.clientWidth - size.width - 8);
    const below = at.bottom + 8 + size.height < innerHeight;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${Math.max(8, below ? at.bottom + 8 : at.top - size.height - 8)}px`;
  }

  const target = (event) => (event.target.closest ? event.target.closest('a[data-term]') : null);
  document.addEventListener('pointerover', (event) => {
    const link = target(event);
    if (event.pointerType !== 'mouse' || pinned) return;
    clearTimeout(timer);
    if (link) timer = setTimeout(() => show(link, false), 120);
    else if (!event.target.closest('#tip')) timer = setTimeout(hide, 120);
  });
  document.addEventListener('focusin', (event) => {
    const link = target(event);
    if (link && link.matches(':focus-visible')) show(link, false);
    else if (owner && !pinned) hide();
  });
  document.addEventListener('click', (event) => {
    const link = target(event);
    if (!link) { if (owner && !event.target.closest('#tip')) hide(); return; }
    event.preventDefault();
    if (pinned && owner === link) hide();
    else show(link, true);
  });
  document.addEventListener('keydown', (event) => { if (event.key === 'Escape') hide(); });
  addEventListener('scroll', () => { if (owner) place(); }, { passive: true, capture: true });
}
