-- New bodies are compressed, which releases with schema 2 cannot read. Those that are there stay as they are.
SELECT 1;
