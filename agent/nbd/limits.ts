/**
 * Every limit on what an NBD peer may send us, in one place. Where the specification sets one it is the
 * specification's, doc/proto.md of github.com/NetworkBlockDevice/nbd.
 */

/** Bytes of a string, "Conventions": MUST be no longer. */
export const maxString = 4096;

/**
 * Bytes of the data of one option or of one reply to an option. The longest legal ones carry two strings of the
 * greatest length; only lists of queries for metadata contexts are longer, of which this is room for a few hundred.
 */
export const maxOptionData = 64 * 1024;

/** Replies to one option: exports of a server, metadata contexts of an export, items of information. */
export const maxOptionReplies = 10_000;

/** Queries in one request for metadata contexts. */
export const maxMetaQueries = 1000;

/** Extents in one chunk, "NBD_REPLY_TYPE_BLOCK_STATUS": SHOULD NOT send more than 2^20. */
export const maxExtentsPerChunk = 2 ** 20;

/** Bytes of a chunk that is not block status: an error with its message, and fields to come after it. */
export const maxOtherChunk = maxString + 64;

/** Chunks of one reply above one for each metadata context: errors at offsets, and the closing NONE. */
export const maxExtraChunks = 16;

/** Options of one client before the transmission phase: one that looks at all of some hundred exports asks two or three each. */
export const maxNegotiatedOptions = 2000;
