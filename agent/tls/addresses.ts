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
