/** Columns as wide as their widest cell; a column of numbers stands to the right. */
export function table(
  headings: readonly string[],
  rows: readonly (readonly string[])[],
  indent: string,
): string {
  const columns = headings.map((heading, index) => {
    const cells = rows.map((row) => row[index] ?? '');
    return {
      width: Math.max(...[heading, ...cells].map((cell) => [...cell].length)),
      isNumeric: cells.every((cell) => /^(-?\d+|-)$/.test(cell)),
    };
  });
  const line = (cells: readonly string[]): string => {
    const padded = columns.map(({ width, isNumeric }, index) => {
      const cell = cells[index] ?? '';
      const space = ' '.repeat(width - [...cell].length);
      return isNumeric ? space + cell : cell + space;
    });
    return `${(indent + padded.join('  ')).trimEnd()}\n`;
  };
  return [line(headings), ...rows.map(line)].join('');
}
