// Small helpers: elements, SVG elements, numbers as text. Text goes in as text nodes only.

const SVG = 'http://www.w3.org/2000/svg';
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, '');
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat(9).filter((child) => child != null && child !== false));
  return element;
}

const make = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const draw = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const name = (text) => make('bdi', {}, text);

const minus = (text) => text.replace('-', '−');

function fixed(value, digits = 3) {
  if (value == null) return '–';
  const size = Math.abs(value);
  if (size >= 1e6 || (size > 0 && size < 10 ** -(digits + 1))) return minus(value.toExponential(2));
  if (size >= 100) return minus(value.toLocaleString('en', { minimumFractionDigits: 1, maximumFractionDigits: 1 }));
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace('-', '') : minus(text);
}

function short(value, unit = '') {
  if (value == null) return '–';
  const prefixes = ['', 'k', 'M', 'G', 'T', 'P', 'E'];
  let i = 0;
  while (Math.abs(value) >= 999.5 && i < prefixes.length - 1) { value /= 1000; i += 1; }
  return `${Number(value.toPrecision(3))} ${prefixes[i]}${unit}`.trim();
}

const COST_UNITS = { seconds_train: 's', stored_bytes: 'B', peak_memory_bytes: 'B' };
const costText = (key, value) => {
  if (key !== 'seconds_train') return short(value, COST_UNITS[key] || '');
  if (value >= 7200) return `${(value / 3600).toPrecision(3)} h`;
  return value >= 120 ? `${(value / 60).toPrecision(3)} min` : `${Number(value.toPrecision(3))} s`;
};

function choice(label, options, chosen, change) {
  const select = make('select', {}, options.map(([value, text]) =>
    make('option', { value, selected: String(value) === String(chosen) }, text)));
  select.addEventListener('change', () => change(select.value));
  return make('label', { class: 'choice' }, `${label} `, select);
}
