/** Where a listener listens. */
export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

/** `host:port` or `[IPv6]:port`, as the schema of the configuration lets it through. */
export function parseListen(text: string): ListenAddress {
  const colon = text.lastIndexOf(':');
  return { host: text.slice(0, colon).replace(/^\[(.*)\]$/, '$1'), port: Number(text.slice(colon + 1)) };
}

/** `host`, `host:port`, `[IPv6]` or `[IPv6]:port`, as the schema lets it through; the port is null where none is named. */
export function parseHost(text: string): { readonly host: string; readonly port: number | null } {
  if (/^(\[.*\]|[^:]*)$/.test(text)) return { host: text.replace(/^\[(.*)\]$/, '$1'), port: null };
  return parseListen(text);
}
