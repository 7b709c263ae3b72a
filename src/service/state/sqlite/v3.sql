-- What was asked for in the caller's own words, where callers have any.
ALTER TABLE audit ADD COLUMN statement TEXT;
