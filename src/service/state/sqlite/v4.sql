-- What a worker must have to take the job, and whom it tells of its end, as whoever queued it knew them.
ALTER TABLE job ADD COLUMN tier TEXT;
ALTER TABLE job ADD COLUMN telling TEXT;
