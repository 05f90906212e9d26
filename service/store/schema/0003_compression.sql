-- New bodies are compressed, which releases with schema 2 cannot read. Existing ones stay as they are.
SELECT 1;
