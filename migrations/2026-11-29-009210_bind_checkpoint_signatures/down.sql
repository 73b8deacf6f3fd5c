alter table checkpoints drop column note_digest;
