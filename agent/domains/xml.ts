import { DOMParser, type Document, type Element, type Node } from '@xmldom/xmldom';
import xpath from 'xpath';

/** Parses XML that libvirt sent; anything that is not well-formed is an error, never repaired. */
export function parseXml(text: string): Document {
  return new DOMParser({
    onError: (level, message) => {
      throw new Error(`XML from libvirt is broken (${level}): ${message}`);
    },
    // XML 1.0, section 2.11. xmldom's own does what XML 1.1 says, and turns U+0085 and U+2028 in a path into a line feed.
    normalizeLineEndings: (source) => source.replace(/\r\n?/g, '\n'),
  }).parseFromString(text, 'text/xml');
}

/** The elements that an XPath expression selects, in document order. */
export function elements(expression: string, at: Node): Element[] {
  const found = xpath.select(expression, at as unknown as globalThis.Node);
  return Array.isArray(found) ? (found as unknown as Element[]) : [];
}

/** The string value of an XPath expression (`@dev`, `source/@file`, `name`); null where nothing matches or it is empty. */
export function text(expression: string, at: Node): string | null {
  const found = xpath.select(`string(${expression})`, at as unknown as globalThis.Node);
  return typeof found === 'string' && found !== '' ? found : null;
}

/** An element to be written: its attributes (undefined ones are left out), then its children or text. */
export interface XmlElement {
  name: string;
  attributes: Record<string, string | number | undefined>;
  children: (XmlElement | string)[];
}

export function element(
  name: string,
  attributes: XmlElement['attributes'] = {},
  ...children: (XmlElement | string | undefined)[]
): XmlElement {
  return { name, attributes, children: children.filter((child) => child !== undefined) };
}

/**
 * The element as XML text, every value escaped.
 * @throws RangeError for a value with a character that XML 1.0 cannot carry
 */
export function toXml({ name, attributes, children }: XmlElement): string {
  const written = Object.entries(attributes)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => ` ${key}="${escaped(String(value))}"`)
    .join('');
  if (children.length === 0) return `<${name}${written}/>`;
  const inner = children.map((child) => (typeof child === 'string' ? escaped(child) : toXml(child))).join('');
  return `<${name}${written}>${inner}</${name}>`;
}

/** XML 1.0, production 2 (Char): tab, line feed, carriage return, and no other control character. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: these characters are what is looked for
const FORBIDDEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|\p{Surrogate}/u;
const ESCAPES: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&apos;',
  '\t': '&#9;',
  '\n': '&#10;',
  '\r': '&#13;',
};

function escaped(value: string): string {
  if (FORBIDDEN.test(value)) throw new RangeError('a value has a character that XML cannot carry');
  return value.replace(/[&<>"'\t\n\r]/g, (character) => ESCAPES[character] ?? character);
}
