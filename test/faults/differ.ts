/** What is in one list and not in the other, a line each. */
export function differ(there: readonly string[], claimed: readonly string[], what: string): string[] {
  return [
    ...there.filter((one) => !claimed.includes(one)).map((one) => `${what} ${one} is there without a record`),
    ...claimed
      .filter((one) => !there.includes(one))
      .map((one) => `${what} ${one} is on record and not there`),
  ];
}
