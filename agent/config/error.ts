/** A mistake in the configuration: the message has a line for each, with file, key and what is allowed. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}
