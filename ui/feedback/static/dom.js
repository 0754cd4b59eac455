// Elements without markup in strings: whatever a prompt holds stays text.

/** An element with attributes and children (elements or text). */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** A share as whole per cent. */
export function percent(value) {
  return `${Math.round(100 * value)}%`;
}
