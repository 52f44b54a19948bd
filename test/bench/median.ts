/** The middle one, or the lower of the two in the middle. @throws TypeError for none */
export function median(values: readonly number[]): number {
  const middle = [...values].sort((a, b) => a - b)[Math.floor((values.length - 1) / 2)];
  if (middle === undefined) throw new TypeError('there is no median of nothing');
  return middle;
}
