-- A server moves by telling every device its new address first. Which have been
-- told: those whose told_n is not below urls_n. Both are numbers of changes.
ALTER TABLE networks ADD COLUMN urls_n INTEGER NOT NULL DEFAULT 0; -- last change of urls, 0: from before this was kept
ALTER TABLE nodes ADD COLUMN told_n INTEGER NOT NULL DEFAULT 0;    -- change of the config that the node holds
