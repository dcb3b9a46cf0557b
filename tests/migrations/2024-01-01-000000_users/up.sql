CREATE TABLE users (id serial PRIMARY KEY, name text NOT NULL, hair text DEFAULT 'brown', age int);
INSERT INTO users (name) VALUES ('the first');
