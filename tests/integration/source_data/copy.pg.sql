--
-- PostgreSQL database dump
--

\restrict abc'def

SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);

CREATE SCHEMA archive;

--
-- Name: count_faces(); Type: FUNCTION; Schema: public; Owner: it's me
--

CREATE FUNCTION public.count_faces() RETURNS trigger
    LANGUAGE plpgsql
    AS $_$
BEGIN
  -- don't stop; here
  INSERT INTO public.faces (id, photo_id, label_id, updated_at) VALUES (77, 10, 1, now());
  EXECUTE 'COPY public.faces FROM stdin;' || $$ ; $$;
  RETURN NEW;
END $_$;

CREATE FUNCTION public.one() RETURNS integer
    LANGUAGE sql
    BEGIN ATOMIC
 INSERT INTO public.labels (id, name) VALUES (1, 'not a row');
 SELECT CASE WHEN true THEN 1 ELSE 2 END AS "case";
END;

COMMENT ON FUNCTION public.one() IS 'Mind this:
COPY public.labels (id, name) FROM stdin;
9	a trap
\.
';

CREATE RULE keep AS ON DELETE TO public.labels DO INSTEAD (SELECT 1; SELECT 2);

CREATE TABLE public.photos (
    posted_at timestamp without time zone DEFAULT '2016-01-01, 00:00'::timestamp without time zone,
    photo_url character varying(1024) NOT NULL,
    id integer NOT NULL,
    "order" numeric(10,2) DEFAULT 1.00,
    source_url character varying(1024),
    CONSTRAINT urls CHECK (((photo_url)::text <> ''::text)),
    key text
);

CREATE TABLE archive.faces (
    id integer NOT NULL,
    photo_id integer NOT NULL,
    label_id integer,
    updated_at timestamp without time zone
);

CREATE TABLE public.empty (
);

CREATE TABLE public.faces (
    updated_at timestamp without time zone,
    id integer NOT NULL,
    photo_id integer,
    data bytea,
    label_id integer
);

CREATE TABLE public.labels (
    id integer NOT NULL,
    name text
);

COPY archive.faces (id, photo_id, label_id, updated_at) FROM stdin;
1	11	1	2011-01-01 00:00:00
2	12	1	2012-01-01 00:00:00
\.


COPY public.photos (posted_at, photo_url, id, "order", source_url, key) FROM stdin;
2016-01-02 03:04:05	http://p.test/10.jpg	10	1.00	http://s.test/10	a;b
\N	http://p.test/'quoted'.jpg?a=1;b=2	11	1.00	\N	\\.
2017-05-05 00:00:00	http://p.test/12,comma.jpg	12	1.00	C:\\temp\\new	\N
2016-01-02 03:04:05	http://p.test/13.jpg	13	1.00		\N
2016-01-02 03:04:05	http://p.test/14.jpg	14	1.00	\N	\N
2016-01-02 03:04:05	http://p.test/15.jpg	15	1.00	\N	\N
2016-01-02 03:04:05	http://p.test/\347\265\265.jpg	16	\N	line\nbreak; -- no comment /* nor here */ $$ {1}	\N
\.


COPY public.empty () FROM stdin;
\.


COPY public.faces (updated_at, id, photo_id, data, label_id) FROM stdin;
2016-01-01 10:00:00	1	10	\\x0009090a0d27	1
2019-01-01 00:00:00	2	10	\\x	\N
2016-01-01 10:00:00.5	3	11	\N	2
2017-05-05 00:00:00	4	12	\N	3
2016-01-01 10:00:00	5	13	\N	4
2016-01-01 10:00:00	6	14	\N	1
2016-01-01 10:00:00	7	14	\N	2
2016-01-01 10:00:00	8	15	\N	99
2016-01-01 10:00:00	9	\N	\N	1
2016-01-01 10:00:00	10	16	\N	5
\.


COPY public.labels (id, name) FROM stdin;
1	宇佐美 幸乃
2	O'Neill; "A" \\ b
3	\N
4	👩‍🎤 one\ntwo\tthree
5	
\.


--
-- PostgreSQL database dump complete
--

\unrestrict abc'def
