drop table cosignatures;
