drop function quittance_wipe_fingerprints(uuid);
