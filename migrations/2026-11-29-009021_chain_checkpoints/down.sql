alter table checkpoints drop column previous_size;
