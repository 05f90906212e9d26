// Elements from data. Text is always text: no function here takes markup, and the content security policy allows none.

const SVG = "http://www.w3.org/2000/svg";

/** Return an HTML element. Attributes that are null, undefined or false are left out; those that begin with `on` are listeners. */
export function h(name, attributes = {}, ...children) {
  return complete(document.createElement(name), attributes, children);
}

/** Return an SVG element. */
export function s(name, attributes = {}, ...children) {
  return complete(document.createElementNS(SVG, name), attributes, children);
}

function complete(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

let lastId = 0;

/** Return an id that no other element of this document has. */
export const newId = () => `n${(lastId += 1)}`;
