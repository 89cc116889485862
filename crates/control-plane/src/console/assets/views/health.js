// How a table fares, as its workers say: absent until one has said so.

export const healthOf = (one) => one.now ?? one;
export const stateOf = (one) => healthOf(one).state ?? "unknown";
