//! Log lines, for people on a terminal and as JSON otherwise.
