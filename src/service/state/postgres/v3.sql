-- What was asked for in the caller's own words, where callers have any.
ALTER TABLE outhaul.audit ADD COLUMN statement TEXT;
