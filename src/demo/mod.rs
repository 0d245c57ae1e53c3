//! A demonstration that needs nothing from outside: a dump, and a host that serves its photos, well or badly.
