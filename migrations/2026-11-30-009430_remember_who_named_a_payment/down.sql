alter table payments drop column named_by_operator;
