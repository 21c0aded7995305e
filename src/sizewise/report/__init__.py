"""Outcomes to tables, pictures, pages and the verdict."""
