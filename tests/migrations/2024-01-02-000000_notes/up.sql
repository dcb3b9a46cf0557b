CREATE TABLE notes (id serial PRIMARY KEY, user_id int NOT NULL REFERENCES users (id), text text NOT NULL);
ALTER TABLE users ADD COLUMN nick text DEFAULT 'nobody';
INSERT INTO notes (user_id, text) SELECT id, 'of ' || name FROM users;
