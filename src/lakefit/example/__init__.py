"""Raw data to try Lakefit on: real tables, arriving the way such data arrives, with known faults."""
