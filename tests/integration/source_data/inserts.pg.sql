--
-- PostgreSQL database dump
--

SET standard_conforming_strings = on;

SET search_path = archive, pg_catalog;

CREATE TABLE faces (
    id integer NOT NULL
);

INSERT INTO faces VALUES (1);

SET search_path = public, pg_catalog;

CREATE TABLE "faces" (
    id integer NOT NULL,
    photo_id integer,
    label_id integer,
    data bytea,
    updated_at timestamp with time zone
);

CREATE TABLE photos (
    id integer PRIMARY KEY,
    source_url text,
    photo_url text,
    posted_at timestamp without time zone
);

CREATE UNLOGGED TABLE labels (
    id integer,
    name text COLLATE pg_catalog."C",
    UNIQUE (id)
);

CREATE TABLE other.labels (
    id integer,
    name text,
    note text,
    more text
);

INSERT INTO public."faces" VALUES (1, 10, 1, '\x0009090a0d27', '2016-01-01 10:00:00+00');
INSERT INTO faces VALUES (2, 10, NULL, NULL, '2019-01-01 00:00:00+00');
INSERT INTO faces VALUES (3, 11, 2, NULL, '2016-01-01 11:00:00.5+01'), (4, 12, 3, NULL, '2017-05-05 00:00:00+00');
INSERT INTO faces VALUES (10, 16, 5, NULL, '2016-01-01 05:00:00-05') ON CONFLICT DO NOTHING;
INSERT INTO Faces (label_id, updated_at, photo_id, id) OVERRIDING SYSTEM VALUE VALUES
	(4, '2016-01-01 19:30:00+09:30', 13, 5),
	(1, '2016-01-01 10:00:00+00'::timestamp with time zone, 14, 6),
	(2, '2016-01-01 10:00:00+00', 14, 7), /* a ; comment */
	(99, '2016-01-01 10:00:00+00', 15, 8),
	(1, '2016-01-01 10:00:00+00', NULL, 9);
INSERT INTO labels VALUES (1, '宇佐美 幸乃');
INSERT INTO labels VALUES (2, 'O''Neill; "A" \ b');
INSERT INTO labels VALUES (3, NULL);
INSERT INTO labels VALUES (4, '👩‍🎤 one
two	three');
INSERT INTO labels VALUES (5, '');
INSERT INTO other.labels VALUES (6, 'a '' b', E'it\'s; ', $x$ ; ' $x$);
INSERT INTO photos VALUES (10, 'http://s.test/10', 'http://p.test/10.jpg', '2016-01-02 03:04:05');
INSERT INTO photos VALUES (11, NULL, 'http://p.test/''quoted''.jpg?a=1;b=2', NULL);
INSERT INTO photos VALUES (12, E'C:\\temp\\new', 'http://p.test/12,comma.jpg', '2017-05-05 00:00:00');
INSERT INTO photos VALUES (13, '', 'http://p.test/13.jpg', '2016-01-02 03:04:05');
INSERT INTO photos VALUES (14, NULL, 'http://p.test/14.jpg', '2016-01-02 03:04:05');
INSERT INTO photos VALUES (15, NULL, 'http://p.test/15.jpg', '2016-01-02 03:04:05');
INSERT INTO photos VALUES (16, 'line
break; -- no comment /* nor here */ $$ {1}', 'http://p.test/絵.jpg', '2016-01-02 03:04:05');

--
-- PostgreSQL database dump complete
--
