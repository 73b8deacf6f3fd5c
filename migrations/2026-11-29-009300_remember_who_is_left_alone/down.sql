alter table transactions drop column left_alone;
