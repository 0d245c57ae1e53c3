//! From the dump of a source database to its candidate photos.
