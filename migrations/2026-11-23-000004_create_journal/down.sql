drop table sequencer_head;
drop table journal_positions;
drop table journal;
drop sequence journal_arrival;
